// Tables as kubectl prints them: upper-case headers, three spaces between columns, no borders. Pure.

const GAP = '   ';

export interface Cell {
  readonly text: string;
  /** Applied after the width is measured. */
  readonly paint?: (text: string) => string;
}

export type Row = readonly (string | Cell)[];

const textOf = (cell: string | Cell): string => (typeof cell === 'string' ? cell : cell.text);

/** Width of each column. */
export function widths(headers: readonly string[], rows: readonly Row[]): number[] {
  return headers.map((header, at) => Math.max(header.length, ...rows.map(row => textOf(row[at] ?? '').length)));
}

/** One line, without the spaces at its end. */
export function line(row: Row, columns: readonly number[]): string {
  const cells = row.map((cell, at) => {
    const text = textOf(cell);
    const padding = at === row.length - 1 ? '' : ' '.repeat(Math.max(0, (columns[at] ?? 0) - text.length));
    const painted = typeof cell !== 'string' && cell.paint !== undefined ? cell.paint(text) : text;
    return (text === '' ? '' : painted) + padding;
  });
  return `${cells.join(GAP).trimEnd()}\n`;
}

export function table(headers: readonly string[], rows: readonly Row[]): string {
  const columns = widths(headers, rows);
  return [headers, ...rows].map(row => line(row, columns)).join('');
}

/** What stands for something that is not known. */
export const UNKNOWN = '-';

export const orUnknown = (value: string | number | undefined): string =>
  value === undefined || value === '' ? UNKNOWN : String(value);

/** 0 to 1 as percent. */
export const percent = (ratio: number | undefined): string =>
  ratio === undefined ? UNKNOWN : `${Math.round(ratio * 100)}%`;
