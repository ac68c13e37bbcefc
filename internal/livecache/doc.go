// Package livecache keeps a small collection in memory and never serves an
// outdated copy of it.
//
// After a save has been answered, [Cache.Get] returns the new rows: in this
// process, and in every other process of this machine that serves the same data
// folder. A write that goes round PocketBase's hooks (raw SQL, another program)
// is found by a check that runs every second.
//
// How: a save increments a number in memory and writes a random token into
// pb_data/.groundwork/notify/<collection id>, which every process has mapped into
// its memory. Get compares both with the ones its copy was made under: two loads,
// no system call. A file watcher would do without the second, but it reports
// after the fact, so that another process could answer one more request with the
// old rows. The folder is not PocketBase's own pb_data/.notify, because that one's
// watcher drops events that other files follow closely.
//
// The package owns the copies, the folder and the check. It binds no PocketBase
// hooks: package hooks calls [Start], [Stop] and [Changed]. Whoever needs a
// collection at hand on every request or record (versions, triggers, providers,
// limits) makes a [Cache].
package livecache
