/**
 * The portable transport: libfuse 2 through the fuse-native package, an optional dependency. libfuse's threads hand
 * every request to the main thread, which serves it there: 18k random reads a second where the kernel transport has 46k
 * (test/bench/REPORT.md). Same operations, minus what libfuse 2 cannot carry (README, "Transports").
 */
import { Counters } from '../../fs/counters.ts';
import type { KernelCaching } from '../../fs/options.ts';
import { MAIN_THREAD, openFs } from '../../fs/spec.ts';
import { reasonOf } from '../../lib/error.ts';
import { setIoFlusher } from '../../sys/libc.ts';
import { openTrace } from '../trace-log.ts';
import type { Transport } from '../transport.ts';
import { loadFuseNative } from './addon.ts';
import { untilHangup } from './hangup.ts';
import { mountFuseNative } from './mount.ts';
import { OpenHandles } from './open-handles.ts';
import { pathOperations } from './path-operations.ts';
import { RequestFlags } from './request-flags.ts';
import { Requests } from './requests.ts';
import { RequestTimes } from './times.ts';

/** libfuse 2 asks the kernel for neither FUSE_DIRECT_IO_ALLOW_MMAP nor FUSE_WRITEBACK_CACHE; the package sets no FOPEN_DIRECT_IO. */
const CACHING: KernelCaching = {
  coherentDirect: false,
  sizeMayLag: false,
  sizelessFiles: false,
  passthroughFd: undefined,
};
/** FUSE_KERNEL_VERSION and FUSE_KERNEL_MINOR_VERSION of libfuse 2.9. */
const PROTOCOL = '7.19';

export const fuseNativeTransport: Transport = {
  async mount({ request, cacheMode, describe, counters, trace, error }) {
    const FuseNative = loadFuseNative();
    // Refused without CAP_SYS_RESOURCE; then nothing is lost but the protection against reclaim waiting for ourselves.
    setIoFlusher();
    const fs = describe(CACHING);
    const ops = openFs(fs, MAIN_THREAD);
    const requests = new Requests({
      ops,
      counters: new Counters(counters, 0),
      trace: await openTrace(trace, (cause) => error(`tracing: ${reasonOf(cause)}`)),
      report: (message, cause) =>
        error(`${message}: ${reasonOf(cause)}`, cause instanceof Error ? cause.stack : undefined),
    });
    const times = new RequestTimes();
    const flags = new RequestFlags();
    const operations = pathOperations({ ops, requests, handles: new OpenHandles(), times, flags });
    // Its timer would answer ETIMEDOUT to who waits for a slow base.
    const fuse = new FuseNative(request.mountpoint, operations, { timeout: false });
    times.attach(fuse._handlers);
    flags.attach(fuse._handlers);
    const fuseFd = await mountFuseNative(fuse, request, cacheMode);
    const unmounted = untilHangup(fuseFd);
    return {
      protocol: PROTOCOL,
      aio: 'threads',
      fs,
      serve: () => ({ ready: Promise.resolve(), unmounted, heldBytes: 0, close: () => {} }),
    };
  },
};
