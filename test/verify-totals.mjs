/**
 * For test/verify.sh: each failure once more, and the totals, so that a log's end says what is wrong, however long the
 * log is. Arguments: the directory of the results, then the names of the pieces that have to be there.
 */
import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

const [directory, ...names] = process.argv.slice(2);
const totals = { passed: 0, failed: 0, skipped: 0 };
let missing = 0;

for (const name of names) {
  let run;
  try {
    run = JSON.parse(readFileSync(join(directory, `${name}.json`), 'utf8'));
  } catch (error) {
    console.log(`FAILED (${name}) left no results: ${error.message}`);
    missing++;
    continue;
  }
  totals.passed += run.numPassedTests;
  totals.failed += run.numFailedTests;
  totals.skipped += run.numPendingTests + run.numTodoTests;
  for (const file of run.testResults) {
    const where = `FAILED (${name}) ${relative(process.cwd(), file.name)}`;
    const failed = file.assertionResults.filter((test) => test.status === 'failed');
    for (const test of failed)
      console.log(`${where} > ${test.fullName}\n${test.failureMessages.join('\n').slice(0, 4000)}`);
    if (file.status === 'failed' && failed.length === 0)
      console.log(`${where}\n${(file.message ?? '').slice(0, 4000)}`);
  }
}

console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
if (missing > 0 || totals.passed === 0) process.exit(1);
