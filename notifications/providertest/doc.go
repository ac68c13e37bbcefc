// Package providertest holds what every provider adapter is tested with: the
// conformance suite ([Run]) and the doubles of the vendors ([APNs], [FCM],
// [SMTP], [Twilio]).
//
// A double is a real server on a loopback address. It checks what the vendor
// checks, answers as the vendor answers (slow, refusing, dropping in the middle,
// per recipient), and keeps a ledger of what it took, so that a test can say
// "exactly once".
//
// It is called by the tests of the adapters, by the tests that start the whole
// app or binary, and by the benchmarks; never by the product itself. It knows no
// PocketBase.
package providertest
