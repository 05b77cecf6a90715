import { defineConfig } from 'vitest/config';

/** For what hangs; a busy machine must not decide a test. */
const TIMEOUTS = { testTimeout: 120_000, hookTimeout: 120_000 };

/**
 * `unit` needs nothing but Node. `integration` mounts for real, one file at a time, since two would see each other's
 * disks: verify-job.sh keeps apart what it runs side by side.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          root: import.meta.dirname,
          include: ['{lib,sys,base,overlay,fs,fuse,transport,cli,daemon}/**/*.test.ts', 'structure.test.ts'],
          ...TIMEOUTS,
        },
      },
      {
        test: {
          name: 'integration',
          root: import.meta.dirname,
          include: ['{integration,conformance,fault,property,guest}/**/*.test.ts', 'readme.test.ts'],
          fileParallelism: false,
          ...TIMEOUTS,
        },
      },
    ],
  },
});
