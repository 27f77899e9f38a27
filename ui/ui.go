// Package ui holds the pages that the daemon shows in a browser: for now one that
// only reads, where the links lead that clients of Kubeflow Pipelines print
// (/#/runs/details/ID and the like). What follows the # never reaches the server,
// so the page's script reads it and asks the APIs, by the rules of any client.
//
// It is a leaf: files, and what a browser must be told with them. Routes are
// package server's.
package ui

import "embed"

// Policy is the Content-Security-Policy of the pages: everything from this server,
// nothing inline, no frame around them.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed index.html app.js pages.js style.css
var files embed.FS

// File is one of the pages' files.
type File struct {
	// Path is where a browser asks for it, a pattern of net/http's ServeMux.
	Path string
	// Type is its content type.
	Type    string
	Content []byte
}

// Files are all of them.
func Files() ([]File, error) {
	all := []File{
		{Path: "/{$}", Type: "text/html; charset=utf-8"},
		{Path: "/ui/app.js", Type: "text/javascript; charset=utf-8"},
		{Path: "/ui/pages.js", Type: "text/javascript; charset=utf-8"},
		{Path: "/ui/style.css", Type: "text/css; charset=utf-8"},
	}
	for i, name := range []string{"index.html", "app.js", "pages.js", "style.css"} {
		content, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all[i].Content = content
	}
	return all, nil
}
