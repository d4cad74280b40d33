/** GetFlow's answer in a shape that is easy to compare. */
export interface ShownFlow {
  kind: string;
  transactions: string;
  transactionsAbstained: string;
  singleEntryRatio: number;
  steps: {
    service: string;
    operation: string;
    transactions: string;
    events: string;
    failures: string;
    durationMsP50: number;
    durationMsP99: number;
    external: boolean;
  }[];
  edges: {
    fromService: string;
    fromOperation: string;
    toService: string;
    toOperation: string;
    transactions: string;
    callsMean: number;
    order: number;
    parallel: boolean;
    loop: boolean;
    failures: string;
    attemptsMean: number;
  }[];
}

export const edgeName = (edge: ShownFlow['edges'][number]): string =>
  `${edge.fromService} ${edge.fromOperation} -> ${edge.toService} ${edge.toOperation}`;

/** `2 a GET / -> b GET / x3 parallel loop` */
export const outline = (flow: ShownFlow): string[] =>
  flow.edges.map(edge =>
    [
      edge.order,
      edgeName(edge),
      ...(edge.callsMean === 1 ? [] : [`x${edge.callsMean}`]),
      ...(edge.parallel ? ['parallel'] : []),
      ...(edge.loop ? ['loop'] : []),
    ].join(' '),
  );
