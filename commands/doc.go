// Package commands adds Groundwork's command line to PocketBase's: the flags of
// the binary and one file per command. It is thin: the work is done elsewhere.
package commands
