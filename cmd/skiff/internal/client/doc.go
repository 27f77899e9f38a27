// Package client speaks to a daemon: over the unix socket in its state folder,
// or over TCP where an address is given. It finds the token by itself.
//
// It knows the API's paths and documents and nothing of flags, terminals or
// tables; it must not import engines or runtimes.
package client
