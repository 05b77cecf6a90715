/**
 * `cowfs doctor`: what this machine offers and what to do about what is missing, one line each.
 */
import type { Command } from 'commander';

export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .summary('check what this machine offers')
    .description(
      'Checks what cowfs needs and can use here. Exits with 4 when something that it cannot do without is missing.',
    )
    .option('--store <dir>', 'the store directory to check (default: $TMPDIR, else /var/tmp)')
    .option('--json', 'an array of checks, for programs')
    .addHelpText('after', '\nExamples:\n  cowfs doctor\n  cowfs doctor --store /srv/scratch')
    .action(async (options: { store?: string; json?: boolean }) => {
      const { runDoctor } = await import('./doctor-checks.ts');
      await runDoctor(options);
    });
}
