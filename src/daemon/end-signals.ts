/**
 * The signals that ask a process to end, for one that serves a mount: caught from the start on, since a signal that
 * ends it between the mount and the first request would leave work to others; what comes early counts once it serves.
 */
import type { MountDaemon } from './mount-daemon.ts';

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

export class EndSignals {
  #daemon: MountDaemon | undefined;
  #wanted = false;

  constructor() {
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        this.#wanted = true;
        void this.#daemon?.detach();
      });
    }
  }

  end(daemon: MountDaemon): void {
    this.#daemon = daemon;
    if (this.#wanted) void daemon.detach();
  }
}
