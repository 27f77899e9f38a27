package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
)

// dockerHub is the server that a registry secret is for where none is named, as
// docker itself writes it.
const dockerHub = "https://index.docker.io/v1/"

// settingOptions are the flags of create, for secrets and config maps alike.
type settingOptions struct {
	out       *format
	sources   dataSources
	immutable bool
	dryRun    bool
	labels    []string
}

func (o *settingOptions) bind(cmd *cobra.Command) {
	o.out = outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&o.sources.literals, "from-literal", nil, "KEY=VALUE; other users of this machine see command lines")
	flags.StringArrayVar(&o.sources.files, "from-file", nil, "[KEY=]PATH of a file, or of a folder of files; KEY=- reads the input")
	flags.StringArrayVar(&o.sources.envFiles, "from-env-file", nil, "file of KEY=VALUE lines")
	flags.BoolVar(&o.immutable, "immutable", false, "the data can never be changed, only deleted")
	flags.BoolVar(&o.dryRun, "dry-run", false, "only check")
	flags.StringArrayVar(&o.labels, "label", nil, "KEY=VALUE, to find it by")
}

// meta is the new object's metadata and the value of its field immutable.
func (o *settingOptions) meta(name string) (core.ObjectMeta, *bool, error) {
	meta := core.ObjectMeta{Name: name}
	for _, label := range o.labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return meta, nil, refuse(fmt.Errorf("--label %q: want KEY=VALUE", label))
		}
		if meta.Labels == nil {
			meta.Labels = map[string]string{}
		}
		meta.Labels[key] = value
	}
	if o.immutable {
		return meta, &o.immutable, nil
	}
	return meta, nil, nil
}

// registryOptions make a secret that opens an image registry.
type registryOptions struct {
	server, username, email string
	passwordStdin           bool
}

func (r *registryOptions) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&r.server, "docker-server", dockerHub, "registry that the secret is for")
	flags.StringVar(&r.username, "docker-username", "", "user name at the registry; makes a "+core.SecretDockerConfigJSON)
	flags.StringVar(&r.email, "docker-email", "", "mail address that some registries want")
	flags.BoolVar(&r.passwordStdin, "docker-password-stdin", false, "read the password from the input")
}

// config is the secret's value: what docker login would write.
func (r *registryOptions) config(in io.Reader) ([]byte, error) {
	if !r.passwordStdin {
		return nil, refuse(errors.New("--docker-username needs --docker-password-stdin: the password is read from the input and is on no command line"))
	}
	text, err := readAtMost(in, "the password", core.MaxDataBytes)
	if err != nil {
		return nil, err
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return nil, refuse(errors.New("--docker-password-stdin: the input is empty"))
	}
	entry := map[string]string{
		"username": r.username, "password": password,
		"auth": base64.StdEncoding.EncodeToString([]byte(r.username + ":" + password)),
	}
	if r.email != "" {
		entry["email"] = r.email
	}
	return json.Marshal(map[string]any{"auths": map[string]any{r.server: entry}})
}

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Make and delete secrets: passwords, tokens, keys, registry credentials",
		Long: "Make and delete secrets. \"skiff get secrets\" lists them. Their values are encrypted\n" +
			"in the state folder and are printed by no command.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.secretCreateCommand(), a.deleteCommand("secrets", "secret"))
	return cmd
}

func (a *app) secretCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a secret",
		Example: "  skiff secret create db --from-literal user=me --from-file password=password.txt\n" +
			"  skiff secret create registry --docker-server registry.example.com --docker-username me --docker-password-stdin < password.txt",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var opts settingOptions
	var registry registryOptions
	var secretType string
	opts.bind(cmd)
	registry.bind(cmd)
	cmd.Flags().StringVar(&secretType, "type", "", "type of the secret ("+core.SecretOpaque+" by default)")
	cmd.MarkFlagsMutuallyExclusive("docker-username", "type")
	for _, source := range []string{"from-literal", "from-file", "from-env-file"} {
		cmd.MarkFlagsMutuallyExclusive("docker-username", source)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		meta, immutable, err := opts.meta(args[0])
		if err != nil {
			return err
		}
		secret := &core.Secret{ObjectMeta: meta, SecretType: secretType, Immutable: immutable}
		switch {
		case registry.username != "":
			config, err := registry.config(a.In)
			if err != nil {
				return err
			}
			secret.SecretType = core.SecretDockerConfigJSON
			secret.Data = map[string][]byte{core.DockerConfigJSONKey: config}
		case registry.passwordStdin || cmd.Flags().Changed("docker-server") || registry.email != "":
			return refuse(errors.New("a registry secret needs --docker-username"))
		default:
			if secret.Data, err = opts.sources.read(a.In); err != nil {
				return err
			}
		}
		return a.createSetting(cmd, "secrets", "secret", secret, &opts)
	}
	return cmd
}

func (a *app) configMapCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "configmap",
		Aliases: []string{"cm"},
		Short:   "Make and delete config maps: settings that are no secret",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	create := &cobra.Command{
		Use:               "create NAME",
		Short:             "Make a config map",
		Example:           "  skiff configmap create train --from-literal epochs=3 --from-file settings.yaml",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var opts settingOptions
	opts.bind(create)
	create.RunE = func(cmd *cobra.Command, args []string) error {
		meta, immutable, err := opts.meta(args[0])
		if err != nil {
			return err
		}
		data, err := opts.sources.read(a.In)
		if err != nil {
			return err
		}
		config := &core.ConfigMap{ObjectMeta: meta, Immutable: immutable}
		for key, value := range data {
			if utf8.Valid(value) {
				put(&config.Data, key, string(value))
			} else {
				put(&config.BinaryData, key, value)
			}
		}
		return a.createSetting(cmd, "configmaps", "config map", config, &opts)
	}
	cmd.AddCommand(create, a.deleteCommand("configmaps", "config map"))
	return cmd
}

func (a *app) claimCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "pvc",
		Aliases: []string{"persistentvolumeclaim"},
		Short:   "Make and delete volume claims: folders that outlive the steps which mount them",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	create := &cobra.Command{
		Use:               "create NAME --size SIZE",
		Short:             "Make a volume claim",
		Example:           "  skiff pvc create data --size 10Gi",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var opts settingOptions
	var size string
	opts.out = outputFlag(create)
	create.Flags().StringVar(&size, "size", "", "how much it is meant to hold, such as 10Gi; noted, not enforced")
	create.Flags().BoolVar(&opts.dryRun, "dry-run", false, "only check")
	create.RunE = func(cmd *cobra.Command, args []string) error {
		amount, err := core.ParseQuantity(size)
		if err != nil {
			return refuse(fmt.Errorf("--size: %w", err))
		}
		claim := &core.PersistentVolumeClaim{ObjectMeta: core.ObjectMeta{Name: args[0]}, Spec: core.PersistentVolumeClaimSpec{
			AccessModes: []string{"ReadWriteMany"},
			Resources:   core.ResourceRequirements{Requests: map[string]core.Quantity{core.ResourceStorage: amount}},
		}}
		return a.createSetting(cmd, "persistentvolumeclaims", "volume claim", claim, &opts)
	}
	cmd.AddCommand(create, a.deleteCommand("persistentvolumeclaims", "volume claim"))
	return cmd
}

func put[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

// createSetting sends a new object and says that it is there.
func (a *app) createSetting(cmd *cobra.Command, plural, title string, object core.Object, opts *settingOptions) error {
	c, done, err := a.writer(cmd.Context())
	if err != nil {
		return err
	}
	defer done()
	name := object.Metadata().Name
	if err := c.Create(cmd.Context(), mustKind(plural), a.namespace, object, opts.dryRun); err != nil {
		if client.Invalid(err) {
			err = refuse(err)
		}
		return err
	}
	if !opts.out.people() {
		if secret, ok := object.(*core.Secret); ok {
			object = secret.Redacted()
		}
		return a.printDocument(*opts.out, object)
	}
	did := "created"
	if opts.dryRun {
		did = "can be created"
	}
	_, err = fmt.Fprintf(a.Out, "%s %s %s\n", title, name, did)
	return err
}

// deleteCommand deletes objects of a kind by name.
func (a *app) deleteCommand(plural, title string) *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME...",
		Short:             "Delete " + title + "s",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.complete(plural),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done, err := a.writer(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			for _, name := range args {
				if err := c.Delete(cmd.Context(), mustKind(plural), a.namespace, name); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(a.Out, "%s %s deleted\n", title, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
