// What the demo prints: short lines, aligned columns, colour only on a terminal.
import pc from 'picocolors';

const began = performance.now();

function clock(): string {
  return `${((performance.now() - began) / 1000).toFixed(1)} s`.padStart(7);
}

export const screen = {
  /** Something has happened. */
  step(text: string): void {
    console.log(`${pc.dim(clock())}  ${text}`);
  },

  /** A new part of the story. */
  title(text: string): void {
    console.log(`\n${pc.dim(clock())}  ${pc.bold(text)}`);
  },

  /** More about the last step. */
  note(text: string): void {
    for (const line of text.trimEnd().split('\n')) console.log(`${' '.repeat(9)}${line}`);
  },

  /** A command that readers can type themselves, and its answer. */
  command(command: string, output: string): void {
    screen.note(pc.cyan(`$ ${command}`));
    screen.note(output);
  },

  blank(): void {
    console.log('');
  },

  /** A line of the summary. */
  verdict(seen: boolean, text: string, detail: string): void {
    const mark = seen ? pc.green('seen    ') : pc.red('NOT SEEN');
    screen.note(`${mark}   ${text}${detail ? pc.dim(`   ${detail}`) : ''}`);
  },
};

/** Columns padded to their widest cell, three blanks between; numbers to the right. */
export function table(header: string[], rows: (string | number)[][]): string {
  const cells = [header, ...rows.map(row => row.map(String))];
  const widths = header.map((_, column) => Math.max(...cells.map(row => (row[column] ?? '').length)));
  const isNumber = header.map((_, column) => rows.length > 0 && rows.every(row => typeof row[column] === 'number'));
  const line = (row: string[]) =>
    row.map((cell, i) => (isNumber[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0))).join('   ');
  return cells.map(row => line(row).trimEnd()).join('\n');
}
