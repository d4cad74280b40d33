// Who a proxy says it is, in Istio's words, so that a filter finds the same properties as in a cluster.
import type { Json } from './json.js';

export interface Identity {
  /** `router` for gateways. */
  kind: 'sidecar' | 'router';
  ip: string;
  /** What outlives nothing: the pod, e.g. `shop-7c9d-0`. */
  pod: string;
  service: string;
  namespace: string;
  /** Mesh cluster id, e.g. `demo`. */
  cluster: string;
}

/** Trust domain and DNS suffix of the mesh. */
export const TRUST_DOMAIN = 'cluster.local';

/** `payment.shop.svc.cluster.local` */
export function serviceHost(service: string, namespace: string): string {
  return `${service}.${namespace}.svc.${TRUST_DOMAIN}`;
}

/** `outbound|8080||payment.shop.svc.cluster.local`, as Istio names a cluster. */
export function outboundCluster(service: string, namespace: string, port: number): string {
  return `outbound|${port}||${serviceHost(service, namespace)}`;
}

export function spiffeId(service: string, namespace: string): string {
  return `spiffe://${TRUST_DOMAIN}/ns/${namespace}/sa/${service}`;
}

/** The bootstrap's `node`. */
export function nodeOf(id: Identity): Json {
  return {
    id: `${id.kind}~${id.ip}~${id.pod}.${id.namespace}~${id.namespace}.svc.${TRUST_DOMAIN}`,
    cluster: `${id.service}.${id.namespace}`,
    metadata: {
      NAME: id.pod,
      NAMESPACE: id.namespace,
      WORKLOAD_NAME: id.service,
      CLUSTER_ID: id.cluster,
      NODE_NAME: 'node-0',
      SERVICE_ACCOUNT: id.service,
      INSTANCE_IPS: id.ip,
      LABELS: { app: id.service, 'service.istio.io/canonical-name': id.service },
    },
  };
}
