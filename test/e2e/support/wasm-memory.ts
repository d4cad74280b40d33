// What the VMs of a proxy hold, read from outside: the kernel's list of the process's mappings.
//
// V8 reserves the whole range that a 32-bit index can reach (8 GiB and guard) for each linear memory, and
// makes its front readable and writable as far as the guest has grown it. So a linear memory is a writable
// mapping with a reservation of GiB right behind it, whatever else V8 has mapped.
import { readFile } from 'node:fs/promises';

export interface LinearMemory {
  /** As far as the guest has grown it. */
  bytes: number;
  /** Of it, touched so far. */
  residentBytes: number;
}

interface Mapping {
  begin: number;
  end: number;
  access: string;
  residentBytes: number;
}

/** No other reservation behind a writable mapping is as large. */
const RESERVED_BYTES_MIN = 4 * 1024 ** 3;

/** One for each VM of the process, the base VMs that only serve to be cloned included. */
export async function linearMemories(pid: number): Promise<LinearMemory[]> {
  return parseLinearMemories(await readFile(`/proc/${pid}/smaps`, 'utf8'));
}

/** @param smaps  text of /proc/PID/smaps */
export function parseLinearMemories(smaps: string): LinearMemory[] {
  const mappings = parse(smaps);
  return mappings.flatMap((mapping, i) => {
    const next = mappings[i + 1];
    const reserved = next?.begin === mapping.end && next.access.startsWith('---') ? next.end - next.begin : 0;
    if (!mapping.access.startsWith('rw-') || reserved < RESERVED_BYTES_MIN) return [];
    return [{ bytes: mapping.end - mapping.begin, residentBytes: mapping.residentBytes }];
  });
}

function parse(smaps: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of smaps.split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) /.exec(line);
    if (head) {
      const [, begin = '', end = '', access = ''] = head;
      mappings.push({ begin: parseInt(begin, 16), end: parseInt(end, 16), access, residentBytes: 0 });
    }
    const resident = /^Rss:\s+(\d+) kB/.exec(line);
    const last = mappings.at(-1);
    if (resident && last) last.residentBytes = Number(resident[1]) * 1024;
  }
  return mappings;
}
