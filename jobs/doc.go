// Package jobs runs background work that survives a crash.
//
// It owns the definition of a job (args and worker), the queues, the outbox
// that ties an enqueued job to the PocketBase transaction that asked for it,
// and the relay that moves outbox rows to River. River and its database
// (pb_data/jobs.db) are an implementation detail: nothing outside this package
// imports River.
//
// It does not know what a notification is. The packages above it (notifications,
// hooks) define args and workers and register them here.
//
// A job may run more than once (a crash after its work and before its
// completion is stored): every worker is idempotent.
package jobs
