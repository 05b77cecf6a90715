/**
 * Cuts a failing list down (delta debugging, as fast-check's own shrinking would need hundreds of mounts here): leaves
 * out ever smaller pieces as long as the rest still fails.
 */

/** @param fails whether a list fails; asked until the time is over */
export async function reduceList<T>(
  list: readonly T[],
  fails: (candidate: readonly T[]) => Promise<boolean>,
  timeoutMs: number,
): Promise<readonly T[]> {
  const endMs = performance.now() + timeoutMs;
  let smallest = list;
  for (let piece = Math.ceil(list.length / 2); piece >= 1; piece = Math.floor(piece / 2)) {
    for (let at = smallest.length - piece; at > -piece && smallest.length > 1; at -= piece) {
      if (performance.now() > endMs) return smallest;
      const without = [...smallest.slice(0, Math.max(0, at)), ...smallest.slice(at + piece)];
      if (await fails(without)) smallest = without;
    }
  }
  return smallest;
}
