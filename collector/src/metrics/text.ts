// The text format of Prometheus, for the metrics whose numbers are told anew for each scrape. Pure.

/** `# HELP` and `# TYPE` of a metric. */
export const preamble = (name: string, type: string, help: string): string =>
  `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n`;

/** A line up to its value: `name{label="value",...} `. Labels and values go by their place. */
export function head(name: string, labels: readonly string[], values: readonly string[]): string {
  if (labels.length === 0) return `${name} `;
  return `${name}{${labels.map((label, i) => `${label}="${escaped(values[i] ?? '')}"`).join(',')}} `;
}

/** A whole line; Prometheus writes what is no number its own way. */
export const line = (head: string, value: number): string => `${head}${numberText(value)}\n`;

function numberText(value: number): string {
  if (Number.isFinite(value)) return String(value);
  if (Number.isNaN(value)) return 'NaN';
  return value > 0 ? '+Inf' : '-Inf';
}

function escaped(value: string): string {
  // Nearly no name needs it, and a scrape has tens of thousands.
  if (!/[\\"\n]/.test(value)) return value;
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
