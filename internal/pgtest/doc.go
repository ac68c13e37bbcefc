// Package pgtest gives tests a real Postgres: a server of their own, without a wait
// for disks, that ends with the test binary.
//
// A test that needs one is skipped with the reason where Postgres is not installed,
// and fails under REQUIRE_PEERS=1.
package pgtest
