// Command compat runs PocketBase's own tests on an app that has Groundwork in it,
// and compares what failed with the list of known differences beside it.
//
// It copies the module from the module cache to a work folder, adds Groundwork to
// the one place where those tests make their app, and runs them with go test. A
// failure that known.txt does not have is an error, and so is a line of known.txt
// that no failure needed any more, unless its reason begins with "sometimes:".
package main
