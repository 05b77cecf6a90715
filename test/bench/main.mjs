/**
 * `npm run bench`: cowfs beside its peers and a plain copy, each on the same base and the same file system, in rounds by
 * turns; medians, their spread, and the ratios that count. Figures are of this machine at this hour: ratios travel, they
 * do not. Nothing passes or fails here.
 *
 *   npm run bench -- [--rounds N] [--seconds N] [--cells TEXT] [--place DIR]... [--json FILE] [--write]
 *   npm run bench -- --from FILE [--write]
 *
 * Without --place it runs in memory (/dev/shm), on the disk (/var/tmp), and as root on an XFS in memory (`xfs`), where cowfs
 * is measured against a plain file only. --write puts the tables into REPORT.md, and the ratios into the README. --json has
 * what there is after each round, also of a run that was stopped; --from makes the tables of such a file.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { boot } from './boot.mjs';
import { CELLS, DISK_MIB } from './cells.mjs';
import { measure } from './fio.mjs';
import { memory } from './memory.mjs';
import { defaultPlaces, inPlace, XFS } from './places.mjs';
import { report, summary } from './report.mjs';
import { startUp } from './start-up.mjs';
import { hasProgram, missing, SUBJECTS } from './subjects.mjs';
import { turned } from './turns.mjs';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    cells: { type: 'string', default: '' },
    subjects: { type: 'string', default: '' },
    place: { type: 'string', multiple: true },
    json: { type: 'string' },
    from: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});

const say = (text) => process.stderr.write(`${text}\n`);

function makeBase(path) {
  const fd = fs.openSync(path, 'w');
  const chunk = Buffer.alloc(2 ** 20);
  // Incompressible, so that no file system below makes it cheap.
  let state = 0x9e3779b9;
  for (let mib = 0; mib < DISK_MIB; mib++) {
    for (let at = 0; at < chunk.length; at += 4) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      chunk.writeInt32LE(state, at);
    }
    fs.writeSync(fd, chunk);
  }
  fs.fsyncSync(fd);
  fs.closeSync(fd);
}

/** Runs a cell on a fresh disk of a subject. */
async function runCell(cell, subject, base, directory, seconds) {
  fs.mkdirSync(directory);
  try {
    // The base is hot for everybody.
    fs.readFileSync(base);
    const running = await subject.start(base, directory);
    try {
      return measure(cell, running.disk, seconds);
    } finally {
      await running.stop();
    }
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

/** Clones where they can be had, and what they are measured against; else all but them. */
function subjectsIn(place, subjects) {
  return subjects.filter(({ isClone = false, ours, secondary, ceiling }) => {
    if (place !== XFS) return !isClone;
    return isClone || ceiling || (ours && !secondary);
  });
}

const shownSubject = ({ name, ours = false, ceiling = false, secondary = false, isClone = false }) => ({
  name,
  ours,
  ceiling,
  secondary,
  isClone,
});

/** Fills in `samples` of `figures`; `tell` is called after each round. */
function runPlace({ place, figures, subjects, rounds, seconds, tell }) {
  return inPlace(place, async (root) => {
    const base = join(root, 'base.img');
    makeBase(base);
    for (let round = 0; round < rounds; round++) {
      for (const { cell, samples } of figures) {
        for (const subject of turned(subjects, round)) {
          if (cell.needs !== undefined && !subject.carries.includes(cell.needs)) continue;
          samples[subject.name].push(await runCell(cell, subject, base, join(root, 'run'), seconds));
        }
        say(`${place}: round ${round + 1} of ${rounds}, ${cell.name}`);
      }
      tell();
    }
  });
}

/** All that there is to be known, and told to `keep` whenever there is more. */
async function run(keep) {
  const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
  const cells = CELLS.filter(({ name }) => name.includes(values.cells));
  const subjects = SUBJECTS.filter((subject) => {
    if (!subject.name.includes(values.subjects) && !subject.ours && !subject.ceiling) return false;
    const lacking = missing(subject);
    if (lacking.length > 0) say(`left out: ${subject.name}, for want of ${lacking.join(', ')}`);
    return lacking.length === 0;
  });
  const names = values.place ?? defaultPlaces(say);
  const result = {
    at: new Date().toISOString(),
    rounds,
    seconds,
    places: [],
    startUp: startUp(rounds * 3),
    memory: await memory(subjectsIn(undefined, subjects), names[0]),
    boot: hasProgram('qemu-system-x86_64') ? await boot(rounds * 3) : undefined,
  };
  for (const place of names) {
    const here = subjectsIn(place, subjects);
    const figures = cells.map((cell) => ({ cell, samples: Object.fromEntries(here.map(({ name }) => [name, []])) }));
    result.places.push({ place, subjects: here.map(shownSubject), cells: figures });
    await runPlace({ place, figures, subjects: here, rounds, seconds, tell: () => keep(result) });
  }
  return result;
}

function keepIn(path, result) {
  if (path !== undefined) fs.writeFileSync(path, `${JSON.stringify(result, undefined, 2)}\n`);
}

const result =
  values.from === undefined
    ? await run((sofar) => keepIn(values.json, sofar))
    : JSON.parse(fs.readFileSync(values.from, 'utf8'));
const text = report(result);
console.log(text);
if (values.write) {
  fs.writeFileSync(new URL('./REPORT.md', import.meta.url), text);
  const readme = new URL('../../README.md', import.meta.url);
  const between = /(<!-- npm run bench -->\n)[\s\S]*(?=<!-- \/npm run bench -->)/;
  fs.writeFileSync(readme, fs.readFileSync(readme, 'utf8').replace(between, `$1${summary(result)}\n`));
}
