/**
 * The state of every block of a disk, two bits each, in a radix tree over the arena: three levels of 1024 pointers
 * above leaves of 1024 blocks (4 MiB of disk, 256 bytes of map). A pointer can also be an answer for everything
 * below it: all base (nothing was written there) or all zero (it was trimmed). So memory follows what was written,
 * 66 KiB a GiB in one piece, whatever the disk's size, a trim of terabytes is a few words, and what was written all over
 * and then trimmed is passed over by its answers: SEEK_DATA over 64 GiB of it takes 0.2 ms, where its words took 15.
 *
 * Reading takes no lock and may run on any worker. Whoever sets states holds the range lock of those blocks; what is
 * published is never moved, and freed with the layer as a whole, when nobody reads it any more.
 */
import type { Arena } from './arena.ts';
import { BASE, type BlockIndex, type BlockState, ZERO } from './block.ts';
import { LOW_BITS, popcount, stateIn, written } from './block-bits.ts';
import type { KeptMemory } from './file/kept-memory.ts';
import { changeLeaf, LEAF_BLOCKS, LEAF_WORDS, occupiedInLeaf, runInLeaf } from './leaf.ts';
import { LAYER } from './shared.ts';

const FANOUT_BITS = 10;
const FANOUT = 1 << FANOUT_BITS;
/** Levels of pointers below the root slot. */
const LEVELS = 3;
/** Leaves below a slot, by the levels of pointers between it and them. */
const SPAN_LEAVES = [1, FANOUT, FANOUT ** 2, FANOUT ** 3] as const;

const LEAVES = SPAN_LEAVES[LEVELS];

/**
 * Pointers that are answers: 0, the arena's fresh memory, is "all base". A negative one is "all zero", too, but with a
 * leaf, at the index without the sign, which says the same and comes back into use with the next write.
 */
const ALL_BASE = 0;
const ALL_ZERO = 1;
const FIRST_NODE = 2;

export class BlockMap {
  /** State of the run that `runAt` found last. */
  runState: BlockState = BASE;

  readonly #arena: Arena;
  readonly #control: Int32Array;
  /** Told of changes, where the map is kept in a file. */
  readonly #kept: KeptMemory | undefined;
  /** Where the last `#find` stopped: levels of pointers left below the slot (0: at a leaf), and the slot itself. */
  #levelsBelow: 0 | 1 | 2 | 3 = 0;
  #slotWords: Int32Array;
  #slotIndex = 0;

  constructor(arena: Arena, control: Int32Array, kept?: KeptMemory) {
    this.#kept = kept;
    this.#arena = arena;
    this.#control = control;
    this.#slotWords = control;
  }

  /** Blocks that it can tell of. */
  readonly blocks = LEAVES * LEAF_BLOCKS;

  /**
   * How many blocks from `block` on share its state, at most `limit`; the state is in `runState`. One pass a word of
   * 16 blocks; a stretch without leaves costs one step whatever its length, trimmed leaves a look at each pointer.
   */
  runAt(block: BlockIndex, limit: number): number {
    let run = 0;
    while (run < limit) {
      const at = block + run;
      const leaf = Math.floor(at / LEAF_BLOCKS);
      const pointer = this.#find(leaf);
      const hasLeaf = pointer >= FIRST_NODE;
      const inLeaf = at - leaf * LEAF_BLOCKS;
      // Read once: another worker may change it between two looks.
      const word = hasLeaf ? Atomics.load(this.#arena.words, pointer + (inLeaf >>> 4)) : 0;
      const state = hasLeaf ? stateIn(word, inLeaf) : leaflessState(pointer);
      if (run > 0 && state !== this.runState) break;
      this.runState = state;
      const found = hasLeaf
        ? runInLeaf(this.#arena.words, pointer, inLeaf, word, state)
        : this.#answerEnd(leaf, state, block + limit) - at;
      run += found;
      // Another state follows within the leaf.
      if (hasLeaf && inLeaf + found < LEAF_BLOCKS) break;
    }
    return Math.min(run, limit);
  }

  /** Blocks of the range that take space in the store. */
  occupied(first: BlockIndex, count: number): number {
    let total = 0;
    const end = first + count;
    for (let at = first; at < end; ) {
      const leaf = Math.floor(at / LEAF_BLOCKS);
      const pointer = this.#find(leaf);
      if (pointer < FIRST_NODE) {
        at = this.#spanEnd(leaf);
        continue;
      }
      const stop = Math.min(end, (leaf + 1) * LEAF_BLOCKS);
      total += occupiedInLeaf(this.#arena.words, pointer, at - leaf * LEAF_BLOCKS, stop - at);
      at = stop;
    }
    return total;
  }

  /**
   * Gives `count` blocks the state; the caller holds their range lock. Keeps WRITTEN_BLOCKS; what a block occupies is
   * the caller's account.
   *
   * @throws RangeError when no memory is left for a node
   */
  set(first: BlockIndex, count: number, state: BlockState): void {
    this.#change(first, count, state);
    this.#kept?.mark(first, count);
  }

  #change(first: BlockIndex, count: number, state: BlockState): void {
    const end = first + count;
    let writtenDelta = 0;
    for (let at = first; at < end; ) {
      const leaf = Math.floor(at / LEAF_BLOCKS);
      let pointer = this.#find(leaf);
      if (pointer < FIRST_NODE) {
        if (leaflessState(pointer) === state) {
          at = this.#spanEnd(leaf);
          continue;
        }
        const isWhole = at === this.#spanStart(leaf) && this.#spanEnd(leaf) <= end;
        if (state === ZERO && isWhole && this.#answer(pointer, ALL_ZERO)) {
          at = this.#spanEnd(leaf);
          continue;
        }
        pointer = this.#grow(leaf);
      }
      const stop = Math.min(end, (leaf + 1) * LEAF_BLOCKS);
      writtenDelta += changeLeaf(this.#arena.words, pointer, at - leaf * LEAF_BLOCKS, stop - at, state);
      // Nobody else can be at this leaf: all of its blocks are locked.
      if (state === ZERO && stop - at === LEAF_BLOCKS) this.#answer(pointer, -pointer);
      at = stop;
    }
    if (writtenDelta !== 0) Atomics.add(this.#control, LAYER.WRITTEN_BLOCKS, writtenDelta);
  }

  /** The states of a leaf's 1024 blocks, 16 to a word, as they are now; past the last leaf those of nothing. */
  copyLeaf(leaf: number, into: Int32Array, at: number): void {
    if (leaf >= LEAVES) {
      into.fill(0, at, at + LEAF_WORDS);
      return;
    }
    const pointer = this.#find(leaf);
    if (pointer < FIRST_NODE) {
      into.fill(leaflessState(pointer) * LOW_BITS, at, at + LEAF_WORDS);
      return;
    }
    const { words } = this.#arena;
    for (let word = 0; word < LEAF_WORDS; word++) into[at + word] = Atomics.load(words, pointer + word);
  }

  /**
   * Gives a leaf the states that `copyLeaf` took; nobody else uses the map yet.
   *
   * @throws RangeError when no memory is left for a node
   */
  loadLeaf(leaf: number, from: Int32Array, at: number): void {
    if (leaf >= LEAVES) return;
    const states = from.subarray(at, at + LEAF_WORDS);
    // What is all alike needs no leaf.
    for (const state of [BASE, ZERO] as const) {
      if (!states.every((word) => word === ((state * LOW_BITS) | 0))) continue;
      this.#change(leaf * LEAF_BLOCKS, LEAF_BLOCKS, state);
      return;
    }
    const pointer = this.#grow(leaf);
    let writtenBlocks = 0;
    for (let word = 0; word < LEAF_WORDS; word++) {
      const now = states[word] as number;
      writtenBlocks += popcount(written(now)) - popcount(written(this.#arena.words[pointer + word] as number));
      this.#arena.words[pointer + word] = now;
    }
    Atomics.add(this.#control, LAYER.WRITTEN_BLOCKS, writtenBlocks);
  }

  /**
   * Sets every block from `first` to the end of the map that has a leaf to `BASE`, in time proportional to what was
   * written; the caller holds the whole range lock and hides the base there.
   */
  clearFrom(first: BlockIndex): void {
    const end = this.blocks;
    for (let at = first; at < end; ) {
      const leaf = Math.floor(at / LEAF_BLOCKS);
      const hasLeaf = this.#find(leaf) >= FIRST_NODE;
      const stop = this.#spanEnd(leaf);
      if (hasLeaf) this.set(at, stop - at, BASE);
      at = stop;
    }
  }

  /** Gives all nodes back to the arena; the caller holds its lock, and nobody uses the map any more. */
  free(): void {
    this.#freeBelow(Atomics.exchange(this.#control, LAYER.ROOT, BASE), LEVELS);
  }

  #freeBelow(slot: number, level: number): void {
    const pointer = Math.abs(slot);
    if (pointer < FIRST_NODE) return;
    const words = level === 0 ? LEAF_WORDS : FANOUT;
    this.#arena.reach(pointer, words);
    if (level > 0) {
      for (let below = 0; below < FANOUT; below++) {
        this.#freeBelow(Atomics.load(this.#arena.words, pointer + below), level - 1);
      }
    }
    this.#arena.free(pointer, words);
  }

  /** The leaf's index in the arena, or the answer above it. Leaves `#levelsBelow` and the slot for the callers. */
  #find(leaf: number): number {
    const arena = this.#arena;
    this.#slotWords = this.#control;
    this.#slotIndex = LAYER.ROOT;
    let pointer = Atomics.load(this.#control, LAYER.ROOT);
    for (let level = LEVELS; level > 0; level--) {
      if (pointer < FIRST_NODE) {
        this.#levelsBelow = level as 1 | 2 | 3;
        return pointer;
      }
      arena.reach(pointer, FANOUT);
      this.#slotWords = arena.words;
      this.#slotIndex = pointer + ((leaf >>> ((level - 1) * FANOUT_BITS)) & (FANOUT - 1));
      pointer = Atomics.load(arena.words, this.#slotIndex);
    }
    // Leafless below the last level of pointers: one leaf's worth of blocks.
    this.#levelsBelow = 0;
    if (pointer >= FIRST_NODE) arena.reach(pointer, LEAF_WORDS);
    return pointer;
  }

  /** First block of the stretch that the last `#find`, of this leaf, answered for. */
  #spanStart(leaf: number): number {
    const leaves = SPAN_LEAVES[this.#levelsBelow];
    return Math.floor(leaf / leaves) * leaves * LEAF_BLOCKS;
  }

  /** The block after that stretch. */
  #spanEnd(leaf: number): number {
    return this.#spanStart(leaf) + SPAN_LEAVES[this.#levelsBelow] * LEAF_BLOCKS;
  }

  /** The block after all that the slots from there on, within their node, answer with the same state; looks up to `end`. */
  #answerEnd(leaf: number, state: BlockState, end: number): number {
    const leaves = SPAN_LEAVES[this.#levelsBelow];
    let answered = this.#spanEnd(leaf);
    if (this.#levelsBelow === LEVELS) return answered;
    let left = FANOUT - 1 - (Math.floor(leaf / leaves) & (FANOUT - 1));
    for (let index = this.#slotIndex + 1; left > 0 && answered < end; left--, index++) {
      // A plain element, as in `leaf.ts`: no node is followed from here.
      const pointer = this.#slotWords[index] as number;
      if (pointer >= FIRST_NODE || leaflessState(pointer) !== state) break;
      answered += leaves * LEAF_BLOCKS;
    }
    return answered;
  }

  /** Turns the slot that the last `#find` stopped at into an answer, unless another thread was faster. */
  #answer(pointer: number, answer: number): boolean {
    this.#arena.lock();
    const unchanged = Atomics.compareExchange(this.#slotWords, this.#slotIndex, pointer, answer) === pointer;
    this.#arena.unlock();
    return unchanged;
  }

  /** Makes the path to a leaf; new nodes say what the pointer above them said. */
  #grow(leaf: number): number {
    const arena = this.#arena;
    arena.lock();
    try {
      for (;;) {
        const pointer = this.#find(leaf);
        if (pointer >= FIRST_NODE) return pointer;
        const slotWords = this.#slotWords;
        const slotIndex = this.#slotIndex;
        if (pointer < ALL_BASE) {
          Atomics.store(slotWords, slotIndex, -pointer);
          continue;
        }
        const isLeaf = this.#levelsBelow === 0;
        const words = isLeaf ? LEAF_WORDS : FANOUT;
        const node = arena.allocate(words);
        if (pointer === ALL_ZERO) arena.words.fill(isLeaf ? ZERO * LOW_BITS : ALL_ZERO, node, node + words);
        Atomics.store(slotWords, slotIndex, node);
      }
    } finally {
      arena.unlock();
    }
  }
}

function leaflessState(pointer: number): BlockState {
  return pointer === ALL_BASE ? BASE : ZERO;
}
