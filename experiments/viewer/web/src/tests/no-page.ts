globalThis.document ??= { getElementById: () => null } as unknown as Document
