/**
 * How large the heaps of threads that serve may grow before they are scavenged. They allocate next to nothing, so a small
 * young generation costs no time; V8's usual one of 16 MiB fills up all the same, in each thread. Measured (4 workers,
 * anonymous memory of the daemon, three runs each): 63 MiB idle and 62 to 80 after 1 GiB of random writes without the
 * limits; 55 and 52 to 60 with them.
 */
import type { ResourceLimits } from 'node:worker_threads';

/** Three semi-spaces of 1 MiB. */
export const SERVING_HEAP: ResourceLimits = { maxYoungGenerationSizeMb: 3 };
