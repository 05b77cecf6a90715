/**
 * What a handler gets and gives: the request under way, the reply to fill, the operations, and the ways out for those
 * that cannot be answered at once. One `Call` a worker; handlers return an errno or `NO_REPLY` and leave the length of
 * a successful payload in `payloadBytes`.
 */
import type { NodeId } from '../fs/node.ts';
import type { FsOps } from '../fs/ops.ts';
import type { Errno } from '../lib/errno.ts';
import type { RequestReader } from './decode.ts';
import type { ReplyWriter } from './reply.ts';

/** What a handler returns when the request wants no answer, or gets it later from somebody else. */
export const NO_REPLY = -1;

/** A write-back that found no space; it goes on elsewhere while this worker serves others. */
export interface HeldWrite {
  readonly uniqueLow: number;
  readonly uniqueHigh: number;
  readonly node: NodeId;
  readonly offset: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** Whom an answer that comes later is for. */
interface Later {
  readonly uniqueLow: number;
  readonly uniqueHigh: number;
  readonly node: NodeId;
}

/** A request whose answer depends on a size that only the kernel knows yet, and that must be asked for elsewhere. */
export type SizeRequest = Later & { readonly offset: number } & (
    | { readonly kind: 'seek'; readonly whence: number }
    | { readonly kind: 'read'; readonly length: number }
  );

/** A request on a file whose content is written when it is opened, by whoever knows it. */
export type GeneratedRequest = Later &
  (
    | { readonly kind: 'generate' }
    | { readonly kind: 'generated-read'; readonly handle: number; readonly offset: number; readonly length: number }
    | { readonly kind: 'generated-release'; readonly handle: number }
  );

/** A request that is answered elsewhere, while this worker serves others. */
export type DeferredRequest = SizeRequest | GeneratedRequest;

/** The request under way and everything its handler may use. One object a worker. */
export interface Call {
  readonly ops: FsOps;
  readonly request: RequestReader;
  readonly reply: ReplyWriter;
  /** Takes over a write-back for which there is no room; its reply comes from there. */
  readonly hold: (write: HeldWrite) => void;
  /** Takes over a request that no worker can answer; its reply comes from there. */
  readonly defer: (request: DeferredRequest) => void;
  payloadBytes: number;
  /** Bytes of data that a READ or WRITE moved, for the counters. */
  movedBytes: number;
}

export type Handler = (call: Call, node: NodeId) => Errno | typeof NO_REPLY;

export interface Operation {
  readonly name: string;
  /** Least bytes of argument after the header. */
  readonly inBytes: number;
  readonly handle: Handler;
  /** Whether it never waits, for nothing but a gate: a look at names and attributes. */
  readonly isQuick: boolean;
  /** Whether the kernel waits for no answer, whatever comes of it. */
  readonly isOneWay: boolean;
}
