// Package pbtest gives tests a real app: a data folder of its own with the real
// migrations, and the real hooks.
//
// It owns the app's start and end in a test, and the shortest way to make people
// and to send requests. It has no doubles of providers (notifications/providertest
// has) and no assertions.
//
// It imports package hooks, so that the tests of hooks and of everything below it
// use it from an external test package (package hooks_test).
package pbtest
