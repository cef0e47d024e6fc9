from helpers.after.campaign.runner import main

if __name__ == "__main__":
    main()
