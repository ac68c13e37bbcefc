// Package notifications is the domain of Groundwork: who is told what, on which
// channel, and what became of it.
//
// It owns the notification (the intent), its audience, the planner that turns
// it into deliveries and batches, the sender that hands messages to providers,
// the outcome type that all providers answer with, templates and triggers.
//
// It does not own HTTP routes, PocketBase hooks or the providers' protocols:
// package hooks binds it to PocketBase, and each adapter (notifications/email
// and so on) speaks one protocol. Adapters import this package, never the other
// way round.
package notifications
