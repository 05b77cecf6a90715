/**
 * `.cowfs` in the root of a mount: found by those who name it, listed nowhere. In it are `status.json`, whose content
 * the daemon's main thread writes when it is opened, and every disk by the number of its node, also one that has lost its
 * name: how a process outside asks the kernel about a disk.
 */
import { NAME_MAX_BYTES, type NodeId } from './node.ts';

export const CONTROL_NAME = '.cowfs';
export const STATUS_NAME = 'status.json';

/** Beyond every row of the table of inodes. */
export const CONTROL_NODE = (2 ** 32 + 1) as NodeId;
export const STATUS_NODE = (2 ** 32 + 2) as NodeId;

/** The path of a disk by its number, from the mountpoint. */
export function pathByNumber(node: NodeId): string {
  return `${CONTROL_NAME}/${node}`;
}

/** The node that a name in `.cowfs` stands for; undefined for one that is no number. */
export function nodeByNumber(name: string): NodeId | undefined {
  return /^[1-9]\d*$/.test(name) && name.length < NAME_MAX_BYTES ? (Number(name) as NodeId) : undefined;
}
