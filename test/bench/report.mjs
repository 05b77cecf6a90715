/**
 * The figures as a page for people: a table a place, the ratios that count, and the machine they are from.
 */
import fs from 'node:fs';
import os from 'node:os';
import { version } from 'node:process';

/** What was found out about the figures, written by hand; the last part of the report. */
const FINDINGS = new URL('./findings.md', import.meta.url);

const OLD_PEERS = ['qemu-storage-daemon', 'nbdkit cow + nbdfuse'];

function median(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const geometricMean = (ratios) => Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);

/** Median, and how far the samples lie around it. */
function cellText(samples, unit) {
  if (samples.length === 0) return '-';
  const middle = median(samples);
  const spread = (Math.max(...samples) - Math.min(...samples)) / middle / 2;
  return `${figureText(middle, unit)} ±${Math.round(spread * 100)}%`;
}

function figureText(figure, unit) {
  return unit === 'iops' && figure >= 1000 ? `${(figure / 1000).toFixed(1)}k` : figure.toFixed(0);
}

const row = (cells) => `| ${cells.join(' | ')} |`;
const ratioText = (ratio) => (ratio === undefined ? '-' : ratio.toFixed(2));

/** Of each cell: ours, the best peer and the ratio of the medians; undefined where no peer carries it. */
function comparisons(cells, subjects) {
  const ours = subjects.find((subject) => subject.ours && !subject.secondary);
  const peers = subjects.filter((subject) => !subject.ours && !subject.ceiling);
  return cells.map(({ cell, samples }) => {
    const carried = peers.filter(({ name }) => samples[name].length > 0);
    const [best] = carried.sort((a, b) => median(samples[b.name]) - median(samples[a.name]));
    if (best === undefined) return { cell, samples, ours: ours.name };
    const ratio = median(samples[ours.name]) / median(samples[best.name]);
    return { cell, samples, ours: ours.name, best: best.name, ratio };
  });
}

/** Of each cell: a clone beside a plain file on the same file system; nothing where there are no clones. */
function cloneRatios({ cells, subjects }) {
  const clone = subjects.find(({ isClone }) => isClone);
  const plain = subjects.find(({ ceiling }) => ceiling);
  if (clone === undefined || plain === undefined) return [];
  return cells.map(({ samples }) => median(samples[clone.name]) / median(samples[plain.name]));
}

function placeText({ place, cells, subjects }) {
  const cloned = cloneRatios({ cells, subjects });
  const ratios = cloned.length > 0 ? cloned : comparisons(cells, subjects).map(({ ratio }) => ratio);
  const lines = [
    `## ${place}`,
    '',
    row(['cell', ...subjects.map(({ name }) => name), cloned.length > 0 ? 'reflink / plain' : 'cowfs / best peer']),
    row(['---', ...subjects.map(() => '---:'), '---:']),
    ...cells.map(({ cell, samples }, index) =>
      row([
        `${cell.name} (${cell.unit === 'iops' ? 'IOPS' : cell.unit})`,
        ...subjects.map(({ name }) => cellText(samples[name], cell.unit)),
        ratioText(ratios[index]),
      ]),
    ),
    '',
  ];
  const told = ratios.filter((ratio) => ratio !== undefined);
  if (told.length > 0) {
    lines.push(
      `${cloned.length > 0 ? 'A clone against a plain file there' : 'Against the best peer of each cell'}: ${geometricMean(told).toFixed(2)} in the geometric mean, ` +
        `${Math.min(...told).toFixed(2)} at least.`,
    );
  }
  for (const ourName of subjects.filter((subject) => subject.ours).map(({ name }) => name)) {
    for (const peer of OLD_PEERS.filter((name) => subjects.some((subject) => subject.name === name))) {
      const pairs = cells
        .map(({ samples }) => [samples[ourName], samples[peer]])
        .filter((pair) => pair.every((samples) => samples.length > 0))
        .map(([a, b]) => median(a) / median(b));
      if (pairs.length > 0) lines.push(`${ourName} against ${peer}: ${geometricMean(pairs).toFixed(2)} in the mean.`);
    }
  }
  return [...lines, ''].join('\n');
}

function machineText() {
  const [cpu] = os.cpus();
  const memory = Math.round(os.totalmem() / 2 ** 30);
  const release = fs.readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  return `${os.cpus().length} × ${cpu?.model ?? 'unknown'}, ${memory} GiB, Linux ${release}, Node ${version}`;
}

const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

export function report({ at, rounds, places, startUp, memory, boot }) {
  const lines = [
    '# Benchmark report',
    '',
    `Made by \`npm run bench -- --write\` on ${at.slice(0, 10)}: ${machineText()}.`,
    `Medians of ${rounds} rounds by turns, with half their spread; a fresh disk for each figure.`,
    '',
    ...places.map(placeText),
  ];
  const [ready, node] = [median(startUp.mountToFirstReadMs), median(startUp.nodeMs)];
  lines.push(
    '## Start, memory, boot',
    '',
    `Mount to first read: ${ready.toFixed(0)} ms, ${(ready / node).toFixed(2)} times \`node -e 0\` (${node.toFixed(0)} ms).`,
    '',
    row(['Pss', 'idle', 'after 1 GiB of random 4k writes', 'more']),
    row(['---', '---:', '---:', '---:']),
    ...memory.map(({ name, idleBytes, loadedBytes }) =>
      row([name, mib(idleBytes), mib(loadedBytes), mib(loadedBytes - idleBytes)]),
    ),
    '',
  );
  if (boot !== undefined) {
    const [ours, theirs] = [median(boot.cowfsMs), median(boot.snapshotMs)];
    lines.push(
      `Guest up: ${(ours / 1000).toFixed(2)} s on cowfs, ${(theirs / 1000).toFixed(2)} s with \`qemu -snapshot\`: ` +
        `${(ours / theirs).toFixed(2)} times.`,
      '',
    );
  }
  return [...lines, fs.readFileSync(FINDINGS, 'utf8')].join('\n');
}

function cloneText(ratios) {
  const [mean, least] = [geometricMean(ratios), Math.min(...ratios)].map((ratio) => ratio.toFixed(2));
  return `A clone of the base on XFS, served by the kernel: ${mean} of a plain file's speed in the mean of these loads, ${least} at least.`;
}

/** For the README: cowfs beside the best peer of each cell, in the first place. */
export function summary({ at, rounds, places }) {
  const [place] = places;
  const compared = comparisons(place.cells, place.subjects).filter(({ ratio }) => ratio !== undefined);
  return [
    `Medians of ${rounds} rounds, ${at.slice(0, 10)}, ${machineText()}; base and store in memory:`,
    '',
    row(['load', 'cowfs', 'best peer', 'ratio']),
    row(['---', '---:', '---:', '---:']),
    ...compared.map(({ cell, samples, ours, best, ratio }) =>
      row([
        cell.name,
        `${figureText(median(samples[ours]), cell.unit)} ${cell.unit === 'iops' ? 'IOPS' : cell.unit}`,
        `${figureText(median(samples[best]), cell.unit)} (${best})`,
        ratio.toFixed(2),
      ]),
    ),
    '',
    `${geometricMean(compared.map(({ ratio }) => ratio)).toFixed(2)} in the geometric mean.`,
    ...places.map(cloneRatios).flatMap((ratios) => (ratios.length === 0 ? [] : ['', cloneText(ratios)])),
  ].join('\n');
}
