// Words that the forms of an event share. Pure.

export const OUTCOMES = ['unspecified', 'ok', 'failed', 'declined', 'cancelled', 'refused'] as const;

export const KEY_SOURCES = [
  'unspecified',
  'header',
  'traceparent',
  'b3',
  'x-b3',
  'uber',
  'sw8',
  'cloud-trace',
  'datadog',
  'request-id',
] as const;

/** A name that no other row has: a receiver that gets it twice keeps it once. Without `row`, what its names begin with. */
export const recordUid = (batchId: string, row: number | ''): string => `${batchId}-${row}`;

/** `payment.shop` is service `payment` in namespace `shop`; a bare name has no namespace. */
export function serviceParts(service: string): { readonly name: string; readonly namespace: string } {
  const dot = service.lastIndexOf('.');
  return dot < 0
    ? { name: service, namespace: '' }
    : { name: service.slice(0, dot), namespace: service.slice(dot + 1) };
}

/** RFC 3339 with microseconds. */
export function rfc3339(us: number): string {
  const whole = Math.round(us);
  const seconds = Math.floor(whole / 1e6);
  const rest = String(whole - seconds * 1e6).padStart(6, '0');
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${rest}Z`;
}
