/** By turns in another order each round, so that none always comes after the same one. */
export function turned(list, by) {
  return list.map((_, index) => list[(index + by) % list.length]);
}
