package kube

import (
	"net/http"
	"slices"

	"github.com/skiff-ml/skiff/server/route"
)

// The published shapes of discovery (meta/v1).
type (
	apiVersions struct {
		Kind     string   `json:"kind"`
		Versions []string `json:"versions"`
	}
	groupVersion struct {
		GroupVersion string `json:"groupVersion"`
		Version      string `json:"version"`
	}
	apiGroup struct {
		Name             string         `json:"name"`
		Versions         []groupVersion `json:"versions"`
		PreferredVersion groupVersion   `json:"preferredVersion"`
	}
	apiGroupList struct {
		Kind       string     `json:"kind"`
		APIVersion string     `json:"apiVersion"`
		Groups     []apiGroup `json:"groups"`
	}
	apiResource struct {
		Name         string   `json:"name"`
		SingularName string   `json:"singularName"`
		Namespaced   bool     `json:"namespaced"`
		Kind         string   `json:"kind"`
		Verbs        []string `json:"verbs"`
		ShortNames   []string `json:"shortNames,omitempty"`
	}
	apiResourceList struct {
		Kind         string        `json:"kind"`
		APIVersion   string        `json:"apiVersion"`
		GroupVersion string        `json:"groupVersion"`
		Resources    []apiResource `json:"resources"`
	}
)

func (r *Resource) discovery() apiResource {
	verbs := []string{"get", "list", "watch"}
	if r.Create != nil {
		verbs = append(verbs, "create")
	}
	if r.Replaceable {
		verbs = append(verbs, "update")
	}
	if r.Removable != nil {
		verbs = append(verbs, "delete")
	}
	if r.Patch != nil {
		verbs = append(verbs, "patch")
	}
	return apiResource{Name: r.Plural, SingularName: r.Singular, Namespaced: true, Kind: r.Kind, Verbs: verbs, ShortNames: r.ShortNames}
}

// discoveryRoutes tell clients what is served.
func (a *API) discoveryRoutes() []route.Route {
	groups := apiGroupList{Kind: "APIGroupList", APIVersion: "v1", Groups: []apiGroup{}}
	lists := map[string]*apiResourceList{}
	var order []string
	for i := range a.resources {
		r := &a.resources[i]
		list := lists[r.root()]
		if list == nil {
			list = &apiResourceList{Kind: "APIResourceList", APIVersion: "v1", GroupVersion: r.APIVersion()}
			lists[r.root()] = list
			order = append(order, r.root())
		}
		list.Resources = append(list.Resources, r.discovery())
		version := groupVersion{GroupVersion: r.APIVersion(), Version: r.Version}
		if r.Group == "" || slices.ContainsFunc(groups.Groups, func(g apiGroup) bool { return g.Name == r.Group }) {
			continue
		}
		groups.Groups = append(groups.Groups, apiGroup{Name: r.Group, Versions: []groupVersion{version}, PreferredVersion: version})
	}
	document := func(path string, value any) route.Route {
		return route.Route{Method: http.MethodGet, Path: path, Verb: "get", Resource: "discovery",
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, value) })}
	}
	routes := []route.Route{
		document("/api", apiVersions{Kind: "APIVersions", Versions: []string{"v1"}}),
		document("/apis", groups),
	}
	for _, root := range order {
		routes = append(routes, document(root, lists[root]))
	}
	return routes
}
