// Package fcm sends push messages through Firebase Cloud Messaging, HTTP v1.
//
// It owns the request (firebase.google.com/go/v4/messaging makes it), the access
// token of the service account, the connections, and the translation of Google's
// answers into outcomes. It retries nothing and stores nothing: package
// notifications does. It uses no FCM topics: who gets what is decided by rows in
// the database.
//
// Protocol: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send
// and https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode.
package fcm
