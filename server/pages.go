package server

import (
	"fmt"
	"net/http"

	"github.com/skiff-ml/skiff/server/route"
	"github.com/skiff-ml/skiff/ui"
)

// pageRoutes serve the pages. They hold nothing of anybody's, so whoever comes may
// have them: what they show they ask of the other routes, which know who that is.
func pageRoutes() ([]route.Route, error) {
	files, err := ui.Files()
	if err != nil {
		return nil, fmt.Errorf("read the pages: %w", err)
	}
	routes := make([]route.Route, 0, len(files))
	for _, file := range files {
		routes = append(routes, route.Route{Method: http.MethodGet, Path: file.Path, Verb: "get", Group: group, Resource: "pages", Public: true,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				header := w.Header()
				header.Set("Content-Type", file.Type)
				header.Set("Content-Security-Policy", ui.Policy)
				header.Set("Referrer-Policy", "same-origin")
				w.WriteHeader(http.StatusOK)
				_, _ = w.Write(file.Content) // a client that left needs no answer
			})})
	}
	return routes, nil
}
