// Which addresses an export may connect to. Pure.
//
// The URLs come from whoever configures the collector, and what a name resolves to from whoever runs its DNS. A
// collector that can be made to call a cloud's metadata service hands out the node's credentials, so link-local and
// metadata addresses are refused, always. Private and loopback addresses are where sinks of a cluster are: refusing them
// by default would only teach everyone to switch the check off. They are refused with `--export-deny-private`, for
// collectors whose sinks are all outside.

import { BlockList, isIP } from 'node:net';

type Range = readonly [address: string, bits: number];

/** Never a sink, and what they are. */
const NEVER: readonly (readonly [what: string, ranges: readonly Range[]])[] = [
  [
    'a link-local or metadata address',
    [
      ['169.254.0.0', 16],
      ['fe80::', 10],
      ['100.100.100.200', 32], // Alibaba Cloud's metadata
      ['192.0.0.192', 32], // Oracle Cloud's
      ['168.63.129.16', 32], // Azure's host agent
      ['fd00:ec2::254', 128], // AWS's, and its other local services
      ['fd00:ec2::', 32],
      ['fd20:ce::254', 128], // Google Cloud's
    ],
  ],
  [
    'an address of no host',
    [
      ['0.0.0.0', 8],
      ['224.0.0.0', 3], // multicast, reserved, broadcast
      ['::', 128],
      ['ff00::', 8],
    ],
  ],
];

const PRIVATE: readonly Range[] = [
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['198.18.0.0', 15],
  ['192.0.0.0', 24],
  ['::1', 128],
  ['fc00::', 7],
  ['fec0::', 10],
];

/** Names by which clouds call their metadata services. */
const METADATA_NAMES: ReadonlySet<string> = new Set([
  'metadata',
  'metadata.google.internal',
  'instance-data',
  'instance-data.ec2.internal',
]);

const family = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 6 ? 'ipv6' : 'ipv4');

function listOf(ranges: readonly Range[]): BlockList {
  const list = new BlockList();
  for (const [address, bits] of ranges) list.addSubnet(address, bits, family(address));
  return list;
}

const NEVER_LISTS = NEVER.map(([what, ranges]) => [what, listOf(ranges)] as const);
const PRIVATE_LIST = listOf(PRIVATE);

/**
 * Why an address, or a name by itself, may not be connected to; undefined = it may.
 *
 * @param host an address (IPv6 with or without brackets) or a name
 */
export function addressFault(host: string, denyPrivate: boolean): string | undefined {
  const bare = host.replace(/^\[|\]$/g, '').replace(/%.*$/, '');
  if (isIP(bare) === 0) {
    return METADATA_NAMES.has(bare.toLowerCase().replace(/\.$/, '')) ? 'a metadata service' : undefined;
  }
  const address = embedded(bare) ?? bare;
  for (const [what, list] of NEVER_LISTS) if (list.check(address, family(address))) return what;
  if (denyPrivate && PRIVATE_LIST.check(address, family(address))) return 'a private address (--export-deny-private)';
  return undefined;
}

/** The IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4): packets go there. */
function embedded(address: string): string | undefined {
  if (isIP(address) !== 6) return undefined;
  const words = wordsOf(address);
  const at = (index: number): string =>
    [words[index]! >> 8, words[index]! & 255, words[index + 1]! >> 8, words[index + 1]! & 255].join('.');
  const zeros = (to: number): boolean => words.slice(0, to).every(word => word === 0);
  if (zeros(5) && words[5] === 0xffff) return at(6);
  if (zeros(6) && (words[6] !== 0 || words[7]! > 1)) return at(6);
  if (words[0] === 0x64 && words[1] === 0xff9b) return at(6);
  if (words[0] === 0x2002) return at(1);
  return undefined;
}

/** The eight words of an IPv6 address. */
function wordsOf(address: string): number[] {
  // A URL writes it in its one canonical form, without dots.
  const text = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = '', tail] = text.split('::');
  const words = (part: string): number[] => (part === '' ? [] : part.split(':').map(word => parseInt(word, 16)));
  if (tail === undefined) return words(head);
  const [before, after] = [words(head), words(tail)];
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}
