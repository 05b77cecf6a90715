/** Entry of a thread of the cases in parallel.mjs: wiring only. */
import { workerData } from 'node:worker_threads';
import { play } from './parallel.mjs';

play(workerData);
