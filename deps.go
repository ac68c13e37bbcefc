//go:build tools

package main

import (
	_ "github.com/emersion/go-smtp"
	_ "github.com/nyaruka/phonenumbers"
	_ "github.com/osteele/liquid"
	_ "github.com/pocketbase/pocketbase/plugins/jsvm"
	_ "github.com/pocketbase/pocketbase/plugins/migratecmd"
	_ "github.com/riverqueue/river"
	_ "github.com/riverqueue/river/riverdriver/riversqlite"
	_ "github.com/riverqueue/river/rivermigrate"
	_ "github.com/stretchr/testify/require"
	_ "github.com/wneessen/go-mail"
)
