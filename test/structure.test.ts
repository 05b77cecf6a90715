/**
 * The house rules of src/README.md that no compiler checks.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { expect, test } from 'vitest';

const SRC = resolve(import.meta.dirname, '../src');

/** From the bottom up; a layer may import from itself and from those before it. */
const LAYERS = ['lib', 'sys', 'base', 'overlay', 'fs', 'fuse', 'transport', 'daemon', 'cli'] as const;

interface Module {
  readonly path: string;
  readonly text: string;
  readonly layer: string;
}

const MODULES: readonly Module[] = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .sort()
  .map((path) => ({
    path,
    text: readFileSync(join(SRC, path), 'utf8'),
    layer: path.split('/')[0] ?? '',
  }));

/** What a module imports, statically, for side effects, re-exported or on demand. */
function importsOf({ text }: Module): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  return [
    ...code.matchAll(/\bfrom\s+['"]([^'"]+)['"]/g),
    ...code.matchAll(/\bimport\s*\(\s*['"]([^'"]+)['"]\s*\)/g),
    ...code.matchAll(/^\s*import\s+['"]([^'"]+)['"]/gm),
    // Entries of threads and processes.
    ...code.matchAll(/new URL\(\s*['"](\.[^'"]+\.js)['"]/g),
  ].map((match) => match[1] as string);
}

/** Path within src of a relative import. */
function targetOf(module: Module, specifier: string): string {
  return relative(SRC, resolve(SRC, dirname(module.path), specifier)).replace(/\.js$/, '.ts');
}

function rankOf(layer: string): number {
  return (LAYERS as readonly string[]).indexOf(layer);
}

test('there is something to check', () => {
  expect(MODULES.length).toBeGreaterThan(50);
  expect(importsOf(MODULES.find(({ path }) => path === 'fs/spec.ts') as Module)).toContain('../overlay/sessions.ts');
  expect(importsOf(MODULES.find(({ path }) => path === 'cli/status.ts') as Module)).toContain('../daemon/registry.ts');
});

test('every module is in a layer', () => {
  expect(MODULES.filter(({ layer }) => rankOf(layer) < 0).map(({ path }) => path)).toEqual([]);
});

test('imports go downwards', () => {
  const upwards = MODULES.flatMap((module) =>
    importsOf(module)
      .filter((specifier) => specifier.startsWith('.'))
      .map((specifier) => targetOf(module, specifier))
      .filter((target) => target !== '../package.json')
      .filter((target) => {
        const rank = rankOf(target.split('/')[0] ?? '');
        return rank < 0 || rank > rankOf(module.layer);
      })
      .map((target) => `${module.path} imports ${target}`),
  );
  expect(upwards).toEqual([]);
});

test('every relative import names a module that is there', () => {
  const paths = new Set(MODULES.map(({ path }) => path));
  const dangling = MODULES.flatMap((module) =>
    importsOf(module)
      .filter((specifier) => specifier.startsWith('.') && !specifier.endsWith('.json'))
      .filter((specifier) => !paths.has(targetOf(module, specifier)))
      .map((specifier) => `${module.path} imports ${specifier}`),
  );
  expect(dangling).toEqual([]);
});

test('modules do not import each other in a circle', () => {
  const edges = new Map(
    MODULES.map((module) => [
      module.path,
      // Types are gone at run time.
      importsOf({ ...module, text: module.text.replace(/^import type [\s\S]*?;$/gm, '') })
        .filter((specifier) => specifier.startsWith('.'))
        .map((specifier) => targetOf(module, specifier)),
    ]),
  );
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): string | undefined => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path].join(' -> ');
    if (done.has(path)) return undefined;
    for (const next of edges.get(path) ?? []) {
      const circle = visit(next, [...trail, path]);
      if (circle !== undefined) return circle;
    }
    done.add(path);
    return undefined;
  };
  for (const path of edges.keys()) expect(visit(path, [])).toBe(undefined);
});

test('foreign functions are called in src/sys alone', () => {
  const elsewhere = MODULES.filter((module) => module.layer !== 'sys' && importsOf(module).includes('koffi'));
  expect(elsewhere.map(({ path }) => path)).toEqual([]);
});

test('no thread closes with itself what it has opened: stores are everybody’s, and closed by whoever is last', () => {
  const starting = MODULES.filter(({ text }) => /\bnew Worker\(/.test(text));
  expect(starting.length).toBeGreaterThan(0);
  expect(starting.filter(({ text }) => !text.includes('trackUnmanagedFds: false')).map(({ path }) => path)).toEqual([]);
});

test('only its own transport knows fuse-native, and no transport another but for mounting', () => {
  const naming = MODULES.filter(({ text }) => /require\('fuse-/.test(text)).map(({ path }) => path);
  expect(naming).toEqual(['transport/fuse-native/addon.ts']);
  const across = MODULES.flatMap((module) =>
    importsOf(module)
      .filter((specifier) => specifier.startsWith('.'))
      .map((specifier) => targetOf(module, specifier))
      .filter((target) => {
        const [from, to] = [module.path, target].map((path) => /^transport\/([^/]+)\//.exec(path)?.[1]);
        return from !== undefined && to !== undefined && from !== to;
      })
      .map((target) => `${module.path} imports ${target}`),
  );
  expect(across).toEqual(['transport/fuse-native/mount.ts imports transport/kernel/mount.ts']);
});

test('the protocol has no descriptor, and neither it nor the overlay knows the other', () => {
  const importing = (layer: string, forbidden: RegExp): string[] =>
    MODULES.filter((module) => module.layer === layer).flatMap((module) =>
      importsOf(module)
        .map((specifier) => (specifier.startsWith('.') ? targetOf(module, specifier) : specifier))
        .filter((target) => forbidden.test(target))
        .map((target) => `${module.path} imports ${target}`),
    );
  expect(importing('fuse', /^(overlay|base|sys)\/|^node:fs$|^fs\/cow-fs\.ts$/)).toEqual([]);
  expect(importing('overlay', /^(fs|fuse)\//)).toEqual([]);
});

test('modules are named for what they are about', () => {
  const vague = MODULES.filter(({ path }) => /(^|\/)(utils?|helpers?|common|misc)(\/|\.ts$)/i.test(path));
  expect(vague.map(({ path }) => path)).toEqual([]);
});

test('every module opens with a comment that says what it is', () => {
  const without = MODULES.filter(({ text }) => !/^(#!.*\n)?\/\*\*[\s\S]{40,}?\*\//.test(text));
  expect(without.map(({ path }) => path)).toEqual([]);
});

test('no `any`, no `enum`, and nothing that tells the compiler to look away', () => {
  const found = MODULES.flatMap(({ path, text }) =>
    [
      ...text.matchAll(/@ts-(?:ignore|expect-error|nocheck)|\bas any\b|: any\b|<any>|^(?:export )?(?:const )?enum /gm),
    ].map((match) => `${path}: ${match[0]}`),
  );
  expect(found).toEqual([]);
});
