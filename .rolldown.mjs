// Bundles what tsc has made of src into the files that Node starts, one a thread: it loads one file of CommonJS in less than
// a third of the time of some sixty modules. Packages stay where npm has put them.
import { defineConfig } from 'rolldown';

/** What starts a thread comes before the rest; pino is loaded only for a log. */
const GROUPS = [
  { name: 'ahead', test: /\/dist\/(transport\/(load|kernel\/worker-thread)|lib\/heap)\.js$/ },
  { name: 'core', test: /\/dist\/(daemon|transport|fuse|fs|overlay|base|sys|lib)\/(?!log\.js$)/ },
];

/** @param chunks how the names of its other files begin: those of two bundles must not meet */
function bundle(entry, codeSplitting, chunks = '') {
  return {
    input: `dist/${entry}.js`,
    platform: 'node',
    external: /^[^./]/,
    checks: { ineffectiveDynamicImport: false },
    output: {
      dir: 'dist/bundle',
      format: 'cjs',
      entryFileNames: '[name].cjs',
      chunkFileNames: `${chunks}[name].cjs`,
      // Comments and spaces would be read at each start; names stay, for stacks.
      minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
      codeSplitting,
    },
  };
}

export default defineConfig([
  bundle('cli/start', { groups: GROUPS }),
  bundle('transport/kernel/worker', true, 'worker-'),
  bundle('daemon/keeper-thread', false),
]);
