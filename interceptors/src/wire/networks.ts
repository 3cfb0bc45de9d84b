/** Networks: the unit in which peers are counted, because one machine has many ports and a household a whole /64. */

import { isIPv6 } from 'node:net';

/** Number of 16-bit groups in an IPv6 address, and in the prefix that counts as one network (/64). */
const IPV6_GROUPS = 8;
const IPV6_NETWORK_GROUPS = 4;

/** The network of an IP address: an IPv4 address itself, or the /64 of an IPv6 address. */
export function networkOf(address: string): string {
  const host = address.replace(/^::ffff:(?=\d+\.)/, '');
  if (!isIPv6(host)) return host;
  const [head = '', tail] = host.split('::');
  const groups = head.split(':').filter(Boolean);
  const last = (tail ?? '').split(':').filter(Boolean);
  const zeros = tail === undefined ? 0 : Math.max(0, IPV6_GROUPS - groups.length - last.length);
  const all = [...groups, ...new Array<string>(zeros).fill('0'), ...last];
  return all.slice(0, IPV6_NETWORK_GROUPS).join(':');
}

/** The network of a peer in the form of grpc-js: an address and a port. */
export function networkOfPeer(peer: string): string {
  return networkOf(peer.replace(/:\d+$/, ''));
}
