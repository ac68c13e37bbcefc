// Package ratelimit counts requests and says when there were too many.
//
// It owns the rules of the rate_limits collection, how a route is matched, the
// counters and where they are kept, and the headers of an answer. It does not
// know whom a request is about, and it binds no PocketBase hooks: package hooks
// does both, and is its only caller beside the other parts of Groundwork that
// limit something by themselves (see [Limiter.Take]).
//
// # The window slides
//
// In any stretch of time of the window's length, both ends included, at most
// Limit takes succeed. It is not a fixed window, which lets twice the limit
// through around its end, and not a token bucket or GCRA, which lets a burst and
// the refill through in one window. A counter is a log of the arrivals that are
// still in the window: one by one up to a limit of 64, and beyond that in 64
// steps of the window, each arrival counted as if it came at the end of its
// step. That never lets more through, and may refuse the last ones up to a 64th
// of the window longer than strictly needed.
//
// # Where counters are kept
//
// Ordinary ones in memory ([memory]), bounded by bytes. Security counters (those
// about an account, a value of the body, or failures) are rows that are written
// before the request goes on ([ledger]), so that neither kill -9 nor a restart
// forgets them, and that processes on one data folder share. With Redis both are
// shared between machines ([redisLogs]); what happens without it is said there.
//
// Every key is an HMAC made with a key of the installation ([Limiter.Key]).
package ratelimit
