// Package config reads Groundwork's environment variables into typed values.
//
// It owns the list of variables, their forms (NAME and NAME_FILE) and the
// sentences for what is wrong with them, all at once. Nothing else reads the
// environment. Packages hooks and commands call it.
package config
