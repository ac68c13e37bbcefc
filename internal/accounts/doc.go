// Package accounts knows what a sign-in is: the session that a token belongs to,
// whether it still lasts, and what a token says about itself.
//
// A session is a row of the collection sessions. The token that PocketBase makes
// at a sign-in gets one more claim, the session's id, and is PocketBase's in
// everything else. [Sessions] answers for every request whether the session is
// still there, from memory: a row is read once, and its end is told by a log
// (the table groundwork_sessions_ended) that is written in the transaction of the
// deletion. Another process on the same data folder notices by a [livecache.Signal]
// before its next answer; after a restart, or when it has missed a part of the
// log, a process forgets what it knew and reads again.
//
// The package binds no PocketBase hooks and answers no request: package hooks
// does. Accounts themselves are PocketBase's auth records.
package accounts
