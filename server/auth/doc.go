// Package auth says who calls and whether they may: the administrator's token,
// the identity behind a unix socket or a connection over the loopback, the
// checks that keep a browser on another site out, and the one authorizer that
// every route goes through.
//
// It knows HTTP and nothing of objects, and must not import the rest of server.
package auth
