// The numbers of the exports, by sink.

import type { Exports } from '../export/exports.js';
import type { Emit } from './exporter.js';

export function collectExports(exports: Exports | undefined, emit: Emit): void {
  if (exports === undefined) return;
  emit('export_thread_deaths_total', [], exports.deaths);
  for (const { name, kind, report } of exports.totals()) {
    emit('export_records_total', [name, 'delivered'], report.delivered);
    emit('export_records_total', [name, 'dropped'], report.dropped);
    emit('export_records_total', [name, 'refused'], report.refused);
    emit('export_tries_total', [name, 'ok'], report.ok);
    emit('export_tries_total', [name, 'retried'], report.retried);
    emit('export_tries_total', [name, 'refused'], report.rejected);
    emit('export_bytes_total', [name], report.bytes);
    emit('export_waiting_records', [name], report.queueRecords + report.inWork);
    emit('export_queue_bytes', [name], report.queueBytes);
    if (kind === 'jsonl') emit('export_files_bytes', [name], report.fileBytes);
  }
}
