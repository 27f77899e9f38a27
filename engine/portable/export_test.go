package portable

// Between calls at between the steps of imports.
func (p *Porter) Between(at func(step string) error) { p.at = at }
