/**
 * `cowfs check`: verifies an overlay file, and mends it.
 */
import { closeSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { CowfsError } from '../lib/error.ts';
import { formatBytes } from '../lib/units.ts';
import type { CheckReport, Problem } from '../overlay/file/check.ts';
import { warn } from './exit.ts';

export function registerCheck(program: Command): void {
  program
    .command('check')
    .summary('verify an overlay file')
    .description(
      'Verifies every checksum of an overlay file. Ends with 0 if all is well, what a crash leaves of writes that were ' +
        'never synced included, and with 1 if something is damaged.',
    )
    .argument('<overlay>')
    .option('--repair', 'mend what can be mended, and say what could not')
    .option('--json', 'one object, for programs')
    .addHelpText(
      'after',
      `
Examples:
  cowfs check vm.cow
  cowfs check vm.cow --repair`,
    )
    .action(async (overlay: string, { repair, json }: { repair?: boolean; json?: boolean }) =>
      check(resolve(overlay), repair === true, json === true),
    );
}

async function check(path: string, repair: boolean, json: boolean): Promise<void> {
  const { openOverlay } = await import('../overlay/file/open.ts');
  const { checkOverlay, repairOverlay } = await import('../overlay/file/check.ts');
  const { checkNotMounted } = await import('../daemon/registry.ts');
  checkNotMounted(path);
  const opened = openOverlay(path, 'overlay', repair ? 'write' : 'read');
  let report: CheckReport;
  let guesses: string[] | undefined;
  try {
    report = checkOverlay(opened);
    if (repair && report.problems.length > 0) guesses = repairOverlay(opened);
  } finally {
    closeSync(opened.fd);
  }
  const isDamaged = report.problems.some(({ kind }) => kind !== 'leftover');
  process.stdout.write(
    json
      ? `${JSON.stringify({ path, ...report, repaired: guesses !== undefined, lost: guesses ?? [] }, undefined, 2)}\n`
      : reportText(path, report, guesses !== undefined),
  );
  for (const guess of guesses ?? []) warn(`${path}: ${guess}`);
  if (guesses !== undefined && guesses.length > 0) {
    throw new CowfsError(
      'failed',
      `overlay ${path} opens again, but not all of it could be saved; restore it from a copy`,
    );
  }
  if (guesses !== undefined || !isDamaged) return;
  const hint = `\`cowfs check --repair ${path}\` mends what can be mended`;
  throw new CowfsError('failed', `overlay ${path} is damaged; ${hint}`);
}

function reportText(path: string, { problems, writtenBytes, pages }: CheckReport, repaired: boolean): string {
  const lines = problems.map(({ kind, offset, what }) => `${labelOf(kind)} at byte ${offset}: ${what}`);
  const damaged = problems.some(({ kind }) => kind !== 'leftover');
  const verdict = repaired ? 'repaired' : damaged ? 'damaged' : 'no damage';
  return `${[...lines, `${path}: ${verdict}; ${formatBytes(writtenBytes)} written, ${pages} pages of map`].join('\n')}\n`;
}

function labelOf(kind: Problem['kind']): string {
  return { damage: 'damage', copy: 'damaged copy', leftover: 'left by a crash' }[kind];
}
