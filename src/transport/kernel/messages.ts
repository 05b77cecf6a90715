/**
 * What the main thread and the workers of the kernel transport say to each other.
 */

import type { FsSpec } from '../../fs/spec.ts';
import type { DeferredRequest, HeldWrite } from '../../fuse/call.ts';
import type { Session } from '../../fuse/init.ts';
import type { TraceTarget } from '../transport.ts';

/** What the worker with the ring, which is the first, shares with those that help it. */
export interface RingTask {
  readonly slots: SharedArrayBuffer;
  readonly handOver: SharedArrayBuffer;
  /** Number of its first lane (`fs/spec.ts`). */
  readonly firstLane: number;
}

/** The first message to a worker, and the only one. */
export interface WorkerTask {
  readonly fuseFd: number;
  readonly index: number;
  readonly session: Session;
  readonly fs: FsSpec;
  readonly counters: SharedArrayBuffer;
  /** Absent where every worker reads /dev/fuse for itself. */
  readonly ring: RingTask | undefined;
  /** Absent when not tracing. */
  readonly trace: TraceTarget | undefined;
}

export type WorkerMessage =
  /** About to serve its first request. */
  | { readonly code: 'READY' }
  /** A write-back for which the store has no room. */
  | { readonly code: 'HELD'; readonly write: HeldWrite }
  /** A request that needs the size that the kernel knows. */
  | { readonly code: 'DEFERRED'; readonly request: DeferredRequest }
  /** Requests that were handed over wait for a thread. */
  | { readonly code: 'BACKLOG' }
  /** Something no handler expected; serving goes on. */
  | {
      readonly code: 'REPORT';
      readonly message: string;
      readonly detail: string;
    }
  /** The file system was unmounted; the thread ends. */
  | { readonly code: 'UNMOUNTED' };
