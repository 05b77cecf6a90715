/**
 * Names and numbers of what a mount shows: node ids as the kernel uses them (1 is the root), file types and modes.
 */

declare const nodeIdBrand: unique symbol;
export type NodeId = number & { readonly [nodeIdBrand]: true };

/** FUSE_ROOT_ID (linux/fuse.h). */
export const ROOT_NODE = 1 as NodeId;
/** No node: what has no parent, no sibling, no child. */
export const NO_NODE = 0 as NodeId;

/** File type bits of st_mode (inode(7)). */
export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_ISGID = 0o2000;
export const PERMISSION_BITS = 0o7777;

/** Directory entry types (readdir(3)). */
export const DT_DIR = 4;
export const DT_REG = 8;

export const NAME_MAX_BYTES = 255;
