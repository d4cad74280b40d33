// Which addresses are the own sidecar's.

/** `loopback`: 127.0.0.0/8 and ::1. An IPv4 address within IPv6 is the IPv4 address. */
export function isFrom(address: string, trusted: readonly string[]): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  return trusted.some(one => one === plain || (one === 'loopback' && (plain === '::1' || /^127\./.test(plain))));
}
