package main

import "github.com/pocketbase/dbx"

// openDatabase is [core.DefaultDBConnect] of PocketBase with transactions that take
// their place among the writers when they begin. Otherwise one that reads before it
// writes is refused at once, without any waiting, when another process has written in
// between: several servers on one data folder, or a command beside a server.
func openDatabase(path string) (*dbx.DB, error) {
	return dbx.Open("sqlite", path+"?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(200000000)"+
		"&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(ON)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)&_defensive=1")
}
