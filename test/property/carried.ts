/**
 * What is left of random operations where not all can be carried out.
 */

/**
 * In place of an operation: O_DIRECT. XFS refuses copy_file_range(2) that is not aligned, and now and then answers reads
 * with EIO ("Direct I/O collision with buffered writes" in dmesg), both of a plain file, too. With Linux 6.18: pwrite(2) of
 * 8195 bytes at 337493 of a file of 300003, fallocate(2) with FALLOC_FL_KEEP_SIZE of 199999 at 163840, read by O_DIRECT.
 */
export const DIRECT = 'direct';

/** Those that are not in `without`; through the page cache where that has O_DIRECT. */
export function carriedOf<Op extends { readonly op: string; readonly kind?: string | undefined }>(
  ops: readonly Op[],
  without: readonly string[],
): readonly Op[] {
  const carried = ops.filter(({ op }) => !without.includes(op));
  if (!without.includes(DIRECT)) return carried;
  return carried.map((op) => (op.kind === DIRECT ? { ...op, kind: 'cached' } : op));
}
