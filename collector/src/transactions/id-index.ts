// Hashes of ids -> small numbers, in one typed array.
//
// 200,000 transactions have a million event ids, far more than fits into a cache: what a look-up costs is
// how many places of memory it touches. Here it is one, for an id that is there and for one that is not: a
// cell holds a hash and a number, eight bytes, and the next cells are on the same line. Whether the number
// is that of the id, its owner knows, who looks at it next anyway. Cells are searched in a row from the
// hash's own place; removing one moves those behind it up, so nothing is left that must be swept. The seed
// of the hashes keeps senders from choosing ids that all fall into one place.

/** What is said of an id that is not there. */
export const NONE = -1;

const START_CELLS = 4096; // doubles past half full

export class HashIndex {
  /** Two words a cell: the hash, and the number + 1; 0 = empty. */
  private cells = new Int32Array(2 * START_CELLS);
  private mask = START_CELLS - 1;
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** The first cell with this hash, or NONE. Cells are good until the next change. */
  first(hash: number): number {
    return this.search(hash, hash & this.mask);
  }

  /** The next cell with the hash, or NONE. */
  after(cell: number, hash: number): number {
    return this.search(hash, (cell + 1) & this.mask);
  }

  /** The number in a cell. */
  at(cell: number): number {
    return this.cells[2 * cell + 1]! - 1;
  }

  put(cell: number, number: number): void {
    this.cells[2 * cell + 1] = number + 1;
  }

  /** Adds a number, 0 or more. What has the hash already stays. */
  add(hash: number, number: number): void {
    if (2 * (this.count + 1) > this.mask) this.grow();
    const { cells, mask } = this;
    let cell = hash & mask;
    while (cells[2 * cell + 1] !== 0) cell = (cell + 1) & mask;
    cells[2 * cell] = hash;
    cells[2 * cell + 1] = number + 1;
    this.count += 1;
  }

  /** The cell in which a number stands under a hash, or NONE. */
  find(hash: number, number: number): number {
    let cell = this.first(hash);
    while (cell !== NONE && this.at(cell) !== number) cell = this.after(cell, hash);
    return cell;
  }

  /** Removes a number under a hash, if it is there. */
  delete(hash: number, number: number): void {
    const cell = this.find(hash, number);
    if (cell !== NONE) this.empty(cell);
  }

  private search(hash: number, cell: number): number {
    const { cells, mask } = this;
    hash |= 0;
    for (let at = 2 * cell; cells[at + 1] !== 0; at = 2 * cell) {
      if (cells[at] === hash) return cell;
      cell = (cell + 1) & mask;
    }
    return NONE;
  }

  /** Empties a cell, and moves up what stands behind it because it was taken. */
  private empty(cell: number): void {
    const { cells, mask } = this;
    this.count -= 1;
    for (let next = (cell + 1) & mask; cells[2 * next + 1] !== 0; next = (next + 1) & mask) {
      const away = (next - cells[2 * next]!) & mask;
      if (away < ((next - cell) & mask)) continue;
      cells[2 * cell] = cells[2 * next]!;
      cells[2 * cell + 1] = cells[2 * next + 1]!;
      cell = next;
    }
    cells[2 * cell + 1] = 0;
  }

  private grow(): void {
    const before = this.cells;
    this.cells = new Int32Array(2 * before.length);
    this.mask = this.cells.length / 2 - 1;
    this.count = 0;
    for (let at = 0; at < before.length; at += 2) {
      if (before[at + 1] !== 0) this.add(before[at]!, before[at + 1]! - 1);
    }
  }
}

/** The finalizer of MurmurHash3: every bit of the input changes half of the output. */
export function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/** Of 64 bits. */
export function hash2(seed: number, a: number, b: number): number {
  const h = Math.imul(seed ^ a, 0x9e3779b1);
  return mix(h ^ (h >>> 15) ^ b);
}

/** Of 128 bits. */
export function hash4(seed: number, a: number, b: number, c: number, d: number): number {
  let h = Math.imul(seed ^ a, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 15) ^ b, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13) ^ c, 0xc2b2ae35);
  return mix(h ^ (h >>> 16) ^ d);
}
